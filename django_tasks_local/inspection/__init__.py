"""What people are shown of tasks: for commands, the admin and monitors. It leaves no trace."""
