"""Where lease and history are kept."""
