"""Load generation against a running service: arrivals, one HTTP client, records, a report. Starts nothing itself."""
