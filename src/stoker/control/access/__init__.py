"""Who may do what: principals, the policies that apply to them, and every operation's action and resource."""
