"""Operations: what is done beside requests."""
