"""What tests share: small runs, oracles, fixtures."""
