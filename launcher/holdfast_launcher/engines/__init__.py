"""How keepers are started on one kind of infrastructure; ``contract`` says what each must do."""
