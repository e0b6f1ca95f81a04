"""Text to ids and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dqnlm.data.tokenizers import base, factory
from dqnlm.data.tokenizers.base import ByteTokenizer, CharacterTokenizer
from dqnlm.errors import UserError

# Written for this test: enough different characters for a vocabulary above 256.
CHINESE = """清晨,渔夫推开木门,看见海面上浮着一层薄雾。
他把旧网叠好,又检查了船桨和绳索。
女儿端来热粥,问他几时回家。
“等潮水退到灯塔脚下,我就回来。”他笑着答。
村口的铁匠已经生火,锤声叮当,像一首短歌。
磨坊旁边,两只白鹅追着一个卖豆腐的少年。
学堂里,先生教孩子们背诵新写的诗句。
最小的男孩总是忘记第三行,同学便偷偷提醒他。
中午时分,乌云从北方压过山岭,风也变得冰凉。
老妇人收起晒在竹竿上的蓝布衣裳。
她说:“骤雨将至,快把鸡鸭赶进棚子!”
果然,雷声滚滚,闪电劈断了庙前的枯松。
街市顿时空荡,只剩一位盲琴师坐在屋檐下。
他弹奏的曲调忽高忽低,仿佛河流穿越峡谷。
有人丢下铜钱,有人递给他半块芝麻饼。
傍晚,雨停了,彩虹横跨稻田与果园。
农民踩着泥泞查看堤坝,幸好没有决口。
母牛哞哞叫唤,催促牧童解开缰绳。
码头上聚集许多妇女,她们焦急地眺望远处。
忽然,一点橘黄色的光在波浪间闪烁。
“是父亲!”女孩喊道,挥舞红色围巾。
渔夫满身湿透,却捧着三条肥美的鲈鱼。
他讲述巨鲸怎样掀翻礁石,又怎样护送小舟靠岸。
邻居们半信半疑,纷纷举杯祝贺平安。
夜深以后,月亮照亮瓦片,猫咪蜷缩灶台边。
灯塔守卫写日记:今日暴雨,无船沉没,感谢天地。
明年春季,桃花盛开,他们计划建造更坚固的桥梁。
木匠量尺寸,石匠凿花纹,书生起草契约。
谁若违反诺言,必须罚款十两银并扫净广场。
如此,小镇平静度过寒冬,故事却越传越奇。
"""


def test_character_ids_are_ranks_of_code_points() -> None:
    """Guards the id order: built from a set, ids would change from process to process."""
    tokenizer = CharacterTokenizer("hello\n")
    assert tokenizer.characters == "\nehlo"
    assert tokenizer.vocabulary_size == 6 and tokenizer.unknown_id == 5
    ids = tokenizer.encode("hole\n")
    assert ids.tolist() == [2, 4, 3, 1, 0] and ids.dtype == torch.uint8


def test_character_round_trip() -> None:
    """Guards decode against being another table than encode, at both ends of the code-point range."""
    text = "a\U0010ffff\x00é\u2028 z"
    tokenizer = CharacterTokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert "".join(tokenizer.stream(tokenizer.encode(text).tolist())) == text
    assert tokenizer.encode("").shape == (0,) and tokenizer.decode([]) == ""


def test_unknown_characters_are_counted() -> None:
    """Guards the table's edges: below, between and above the known characters, each once."""
    tokenizer = CharacterTokenizer("bd")
    assert tokenizer.encode("abcde\U0010ffff").tolist() == [2, 0, 2, 1, 2, 2]
    assert tokenizer.count_unknown("abcde\U0010ffff") == 4
    assert tokenizer.decode([0, 2, 1]) == "b\ufffdd"


def test_strict_encoding_names_characters_and_positions() -> None:
    """Guards prompts: an unknown character must not slip in as the unknown token."""
    tokenizer = CharacterTokenizer("abc")
    assert tokenizer.encode_strict("cab").tolist() == [2, 0, 1]
    with pytest.raises(UserError, match=r"'é' U\+00E9 \(position 2\), '5' U\+0035 \(position 4\)"):
        tokenizer.encode_strict("aéb5é")


def test_strict_encoding_names_at_most_five() -> None:
    """Guards the message's length for a prompt in another script."""
    with pytest.raises(UserError, match=r"\(position 5\) and 25 more"):
        CharacterTokenizer("A").encode_strict("abcdefghijklmnopqrstuvwxyz0123"[:30])


def test_bytes_round_trip() -> None:
    """Guards the byte tokenizer on 1- to 4-byte characters, also when they arrive one byte at a time."""
    tokenizer = ByteTokenizer()
    text = "aé漢🙂\n"
    ids = tokenizer.encode(text)
    assert ids.tolist() == list(text.encode()) and ids.dtype == torch.uint8
    assert tokenizer.decode(ids) == text
    pieces = list(tokenizer.stream(ids.tolist()))
    assert "".join(pieces) == text and "\ufffd" not in pieces
    assert tokenizer.vocabulary_size == 256 and tokenizer.unknown_id is None and tokenizer.count_unknown("漢") == 0


def test_invalid_byte_sequences_decode() -> None:
    """Guards generation: a network may emit any bytes, and none of them may raise."""
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0x61, 0xFF, 0x62]) == "a\ufffdb"
    assert tokenizer.decode([0xE6, 0xBC]) == "\ufffd"
    assert "".join(tokenizer.stream([0x61, 0xE6, 0xBC])) == "a\ufffd"
    assert len(tokenizer.decode(list(range(256)))) >= 128
    assert tokenizer.encode("\udcff").tolist() == [0xFF]  # how a command line hands over a byte that is no UTF-8
    with pytest.raises(UserError, match="position 2"):
        tokenizer.encode_strict("a\ud800")


def test_bytes_that_are_no_text_in_the_locale_are_said_to_be_that() -> None:
    """Bug: an emoji typed under LC_ALL=C is said to be four letters that do not occur in the training text."""
    with pytest.raises(UserError, match=r"bytes that are no letters: .*UTF-8"):
        CharacterTokenizer("ab").encode_strict("a\udcf0\udc9f")


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer("ab"), ByteTokenizer()])
def test_ids_outside_the_vocabulary_are_refused(tokenizer: base.Tokenizer) -> None:
    """Guards against NumPy's negative indices: -1 would read as the unknown token."""
    for wrong in (-1, tokenizer.vocabulary_size):
        with pytest.raises(ValueError, match=str(wrong)):
            tokenizer.decode([0, wrong])


def test_vocabulary_above_256() -> None:
    """Guards the dtype: as uint8 the ids of a Chinese text would wrap round without a word."""
    tokenizer = CharacterTokenizer(CHINESE)
    assert tokenizer.vocabulary_size > 257
    ids = tokenizer.encode(CHINESE)
    assert ids.dtype == torch.int32 and int(ids.max()) == tokenizer.vocabulary_size - 2
    assert tokenizer.decode(ids) == CHINESE


def test_dtype_changes_at_256_ids() -> None:
    """Guards the boundary: 255 characters and the unknown token fit one byte, 256 do not."""
    assert CharacterTokenizer("".join(map(chr, range(255)))).dtype == torch.uint8
    assert CharacterTokenizer("".join(map(chr, range(256)))).dtype == torch.int32


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer(CHINESE + '\x00"\\'), ByteTokenizer()])
def test_save_and_load(tokenizer: base.Tokenizer, tmp_path: Path) -> None:
    """Guards the saved form: a loaded tokenizer gives the same ids, and nothing else is left in the folder."""
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = factory.load(path)
    assert loaded.state() == tokenizer.state() == json.loads(json.dumps(tokenizer.state()))
    assert torch.equal(loaded.encode("海面x"), tokenizer.encode("海面x"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards atomicity: a save that fails midway must not leave half a file, nor a temporary one."""
    path = tmp_path / "tokenizer.json"
    ByteTokenizer().save(path)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        CharacterTokenizer("abc").save(path)
    assert factory.load(path).state() == {"kind": "byte"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"kind": "word"}', '{"kind": "character"}'])
def test_damaged_files_are_user_errors(content: str | None, tmp_path: Path) -> None:
    """Guards loading: a missing or damaged file gives a message, not a KeyError."""
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer"):
        factory.load(path)
