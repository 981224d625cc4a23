"""Zip archives to code that can be mounted: checked, extracted once per CodeSha256 in an unprivileged helper process."""
