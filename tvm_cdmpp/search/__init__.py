"""CDMPP and the baselines inside TVM's auto-scheduler."""
