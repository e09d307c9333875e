"""The parts of `candle-phi chat`: the conversation, its answers, its commands, and the input line."""
