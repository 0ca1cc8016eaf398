"""Which proxy may own kernels at all: every one (active-active), or the leader (active-passive)."""
