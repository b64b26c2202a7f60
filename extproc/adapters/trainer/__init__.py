"""The process that closes the loop: from the growing sample store to the next model file."""
