"""The node side: fetch what is wanted, plan, do, report; and the way to the guests."""
