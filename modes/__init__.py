"""What main.py does in each of its modes."""
