"""The desktop application: read a report with the scan pointing back."""
