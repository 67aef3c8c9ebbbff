"""State stores: what keyed state is kept in."""
