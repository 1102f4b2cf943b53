"""What training minimises. One file holds one objective."""
