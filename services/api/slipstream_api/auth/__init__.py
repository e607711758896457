"""Who calls, and what the user's own auth handlers let them do."""
