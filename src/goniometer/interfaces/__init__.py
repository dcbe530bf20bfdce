"""Potentials for other engines: i-PI, in process and over sockets."""
