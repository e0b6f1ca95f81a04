"""Rules of games and graphs with known answers, without networks: what follows an action, its reward, the optimum."""
