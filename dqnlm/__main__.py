from dqnlm.cli import main

raise SystemExit(main())
