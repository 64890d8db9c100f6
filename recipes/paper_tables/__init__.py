"""The tables of the three papers: their rows, the runs behind them, and their pages."""
