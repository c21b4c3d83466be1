"""Building and timing programs: sessions, outcomes, calibration, sampling, collecting."""
