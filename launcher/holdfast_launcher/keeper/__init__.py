"""The keeper: one small process beside each kernel that holds what must not be lost."""
