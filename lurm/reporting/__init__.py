"""What people read: pages that need nothing from outside, and the table at the end of a run."""
