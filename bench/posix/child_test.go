package posix

// child is what this binary does when it is started as another user.
func child() int { return 2 }
