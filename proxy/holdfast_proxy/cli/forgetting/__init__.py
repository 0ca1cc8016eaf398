"""`holdfast forget-launcher`: letting a launcher join anew."""
