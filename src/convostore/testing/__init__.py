"""Testing: what users of convostore need to test their own services on real servers."""
