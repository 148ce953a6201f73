"""`POST /webhooks/NAME`: what sites tell of themselves, on its way to the rules."""
