"""What `candle-phi chat` is made of: the conversation, its answers, its commands, and the line that is typed."""
