"""SMTP: mail from anywhere to VMs that take it. Nothing is sent on from here."""
