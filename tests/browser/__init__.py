"""A package, so that its fixtures end with it: an open browser would leave its event loop to the tests after it."""
