"""Zip archives to code that can be mounted: checked and unpacked once per CodeSha256 in a helper process."""
