"""What of the chaos harness runs inside launchers and keepers: it writes down tokens and effects,
and plants the faults that the checker must find. None of it is in the product."""
