"""What every policy is made of: its interface, options, deployment, and what work costs where."""
