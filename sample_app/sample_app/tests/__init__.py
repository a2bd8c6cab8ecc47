"""The tests of the sample application: they ask for pages and look at what comes back."""
