"""Rules of games and graphs with known optima, without networks: transitions, rewards and best returns."""
