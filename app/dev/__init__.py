"""Everything behind `make run`: the embedded services, the demo data and the mailbox."""
