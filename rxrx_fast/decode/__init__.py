"""From encoded bytes to uint8 or uint16 stacks: decoders, the choice between them, and the DALI pipeline."""
