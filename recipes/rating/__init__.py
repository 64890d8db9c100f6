"""Human ratings of explanations, descriptions and tokens: studies, sheets, reports."""
