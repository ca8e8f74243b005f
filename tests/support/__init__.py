"""What the tests share: databases, applications of both frameworks, servers."""
