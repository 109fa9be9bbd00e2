"""The command line `trimoe`: one file per subcommand, each with one plain function."""
