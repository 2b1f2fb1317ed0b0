"""The pure core: specifications, plan, events, states and the machine. No input, no output, no clock, no threads."""
