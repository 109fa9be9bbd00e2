"""The checks of `trimoe ndp validate`, one file for each part of the emulator."""
