"""The agent over HTTP: health, metrics, webhooks, a JSON API and a status page."""
