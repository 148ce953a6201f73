"""What commands and the agent share around runs: building sites and engine, commands around a run, bandwidth windows."""
