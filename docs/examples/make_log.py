"""Prints an example log: 2,000 rated replies to customers, one JSON object a line.

Each problem has three replies. The worst makes up six tenths of the log and the best one tenth, so a model that imitates
the log learns the worst reply, and a model that learns from the ratings can learn the best one.
"""

import json
import random

PRODUCTS = ["lamp", "table", "radio", "chair", "clock", "kettle", "carpet", "mirror"]
REPLIES = {  # problem: (reply, mean rating from 0 to 1), in the order of SHARES
    "is broken": [("Please read the manual.", 0.0), ("Send it back.", 0.4), ("A new {product} comes today.", 1.0)],
    "came late": [("It is not our fault.", 0.0), ("We are sorry.", 0.5), ("We pay for the delay.", 1.0)],
    "is the wrong size": [("All sales are final.", 0.0), ("Choose better.", 0.1), ("We swap the {product}.", 1.0)],
}
SHARES = [6, 3, 1]  # of ten logged replies

draw = random.Random(0)
for _ in range(2000):
    product, problem = draw.choice(PRODUCTS), draw.choice(list(REPLIES))
    reply, rating = draw.choices(REPLIES[problem], SHARES)[0]
    noisy = min(1.0, max(0.0, rating + draw.uniform(-0.2, 0.2)))
    prompt = f"Order {draw.randrange(1000, 10000)}: the {product} {problem}."
    print(json.dumps({"prompt": prompt, "completion": " " + reply.format(product=product), "reward": round(noisy, 2)}))
