"""Human ratings of explanations: sheets, studies, reports."""
