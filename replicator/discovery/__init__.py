"""What is where: sites compared, images described. Asks only, and knows ports only."""
