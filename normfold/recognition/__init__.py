"""What nodes mean, however they are spelled."""
