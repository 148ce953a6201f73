"""Where bytes come from: mirrors, the source, the spool; always verified."""
