"""What is done with the vectors once they are there: audiences, neighbors, one plain table."""
